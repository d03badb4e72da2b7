"""Function words of English and Arabic, for the stop-word filter (paper §2.1): articles, pronouns, prepositions, conjunctions, auxiliaries.

Written for this project. Arabic words stand without diacritics; the conjunctions و and ف, which are written onto the next word, are added
to every word, so that ومن counts as من does, and a final ى may be written ي and the other way round, as in Egypt (فى).
"""

from __future__ import annotations

_ENGLISH = """
a about above after again against all almost also although always am among an and another any are aren't around as at away be became because
become been before being below between both but by can can't cannot could couldn't did didn't do does doesn't doing don't done down during each
either else ever every few for from further had hadn't has hasn't have haven't having he he'd he'll he's hence her here hers herself him himself
his how however i i'd i'll i'm i've if in indeed into is isn't it it's its itself just least less let's like many may me might mine more most
much must my myself neither never no nor not now of off often on once one only onto or other others otherwise our ours ourselves out over own
perhaps quite rather same shall she she'd she'll she's should shouldn't since so some someone something such than that that's the their theirs
them themselves then there there's therefore these they they'd they'll they're they've this those though through thus to too toward towards
under unless until up upon us very was wasn't we we'd we'll we're we've were weren't what when where whereas whether which while who whole whom
whose why will with within without won't would wouldn't yet you you'd you'll you're you've your yours yourself yourselves
"""

_ARABIC = """
في من على إلى الى عن مع بين حتى منذ خلال حول عند عندما لدى ضد دون بدون عبر نحو قبل بعد تحت فوق أمام امام وراء خلف قرب داخل خارج ضمن سوى غير إلا الا
أن ان إن أنه انه إنه أنها انها إنها أنهم إنهم أنني إنني أننا إننا بأن بأنه بأنها لأن لأنه لأنها لأنهم كأن كأنه كأنها لكن لكنه لكنها ولكن لكي كي لعل ليت
لا لم لن ما ليس ليست ليسوا لست لسنا ألا كلا بل بلى نعم قد لقد سوف هل أم أو او ثم إذا اذا إذ اذ إذن لو لولا لما مما فيما عما مثلما كلما حيث حين حينما بينما كما
كيف متى أين لماذا ماذا من كم أي أية أيها أيضا ايضا فقط جدا هنا هناك هنالك الآن
هذا هذه هذان هذين هاتان هؤلاء ذلك تلك ذاك أولئك الذي التي الذين اللذان اللتان اللذين اللواتي اللاتي ذا ذو ذي ذات
هو هي هم هن هما أنا انا نحن أنت انت أنتم انتم أنتن إياه إياها
كان كانت كانوا كنت كنا يكون تكون يكونوا أكون نكون كن ليكون لتكون صار أصبح أصبحت ظل مازال زال يزال تزال دام بات
كل كلها كله كلهم جميع جميعا بعض بعضها بعضهم كلا كلتا كثير أكثر أقل أحد إحدى نفس نفسه نفسها ذاته ذاتها سائر معظم عدة
به بها بهم بهما بي بك بنا بما بمن بهذا بهذه بذلك بتلك له لها لهم لهما لي لك لكم لنا لمن لهذا لهذه لذلك لتلك لذا
فيه فيها فيهم فيهما منه منها منهم منهما مني منك منا عليه عليها عليهم عليهما علي عليك علينا إليه إليها إليهم إلي إليك إلينا
عنه عنها عنهم عني عنك عنا معه معها معهم معي معك معنا عنده عندها عندهم عندي عندك عندنا لديه لديها لديهم بينه بينها بينهم بيننا بعده بعدها قبله قبلها
كذلك كهذا كهذه هكذا أما اما إما إنما انما حسب مثل وفق يا أيها مهما طالما ربما
اللي مش مو موب عشان علشان ده دي دا كده كدا ايه إيه دول احنا إحنا انتو هيك هاد هاي هذي شو ليش ليه وين فين بس لسه كمان برضه رح راح يلي
"""

ENGLISH = frozenset(_ENGLISH.split())
_FINALS = {"ى": "ي", "ي": "ى"}
ARABIC = frozenset(prefix + form for word in _ARABIC.split() for form in (word, word[:-1] + _FINALS.get(word[-1], word[-1])) for prefix in ("", "و", "ف"))
STOP_WORDS: dict[str, frozenset[str]] = {"en": ENGLISH, "ar": ARABIC}
