"""The planted defects of the sample: blatant ones, each document with exactly one, each counted in data/EXPECTED.json.

Texts in other languages, spam and lists were written for this; what fails because of its length, URL or copy is made by
`allam.sample.corpus` from sound documents.
"""

from __future__ import annotations

# Which source gets which foreign texts; every one is long enough, so that its language is its only defect.
FOREIGN: dict[str, list[str]] = {
    "web_en": [
        "Le marché du village se tient chaque samedi sur la grande place. Les paysans y vendent des légumes, du fromage et du pain "
        "frais, et les enfants courent entre les étals pendant que leurs parents discutent du temps et des récoltes de la saison.",
        "El tren salió de la estación muy temprano por la mañana y cruzó las montañas cubiertas de nieve. Los viajeros miraban por "
        "la ventana, hablaban en voz baja y compartían el pan que habían comprado antes de subir al vagón.",
        "Am Sonntag gingen wir mit den Kindern in den Wald, um Pilze zu suchen. Der Boden war noch feucht vom Regen der letzten Nacht, "
        "und zwischen den alten Bäumen roch es nach Erde und nach nassen Blättern, bis es dunkel wurde.",
        "Köyün kahvesinde her akşam aynı insanlar toplanır, çay içer ve eski günleri konuşurlar. Kışın soba yanar, yazın ise masalar "
        "çınar ağacının altına çıkarılır ve çocuklar meydanda gece yarısına kadar top oynarlar, kimse onlara karışmaz.",
        "Chaque printemps, ma grand-mère ouvrait les fenêtres de la vieille maison et lavait les rideaux blancs dans la cour. Elle "
        "disait que la lumière devait entrer partout, même dans les tiroirs où dormaient les lettres de son frère.",
        "La biblioteca del barrio cierra los lunes, pero los demás días está llena de estudiantes que preparan sus exámenes. Una señora "
        "mayor viene siempre con su nieto y le lee cuentos en el rincón de los libros infantiles.",
    ],
    "web_ar": [
        "هر روز صبح پدربزرگ به باغ می‌رفت و درختان سیب را آب می‌داد. او می‌گفت که درخت مانند فرزند است و باید با مهربانی از آن "
        "نگهداری کرد تا میوه‌های شیرین بدهد و سایه‌اش برای همه باشد.",
        "ما در تابستان به شهر کوچکی کنار دریا رفتیم و یک هفته در خانه‌ای قدیمی ماندیم. بچه‌ها هر روز شنا می‌کردند و شب‌ها همه با هم "
        "در حیاط می‌نشستیم و چای می‌خوردیم و داستان می‌گفتیم.",
        "گاؤں کے بچے ہر صبح پیدل اسکول جاتے ہیں اور راستے میں ایک دوسرے کو کہانیاں سناتے ہیں۔ ان کا استاد بہت مہربان ہے اور وہ انہیں "
        "پڑھنے کے ساتھ ساتھ باغ میں پودے لگانا بھی سکھاتا ہے۔",
        "میری دادی کے گھر میں ایک پرانی گھڑی تھی جو ہر گھنٹے بعد بجتی تھی۔ ہم سب بہن بھائی اس کی آواز سن کر خاموش ہو جاتے تھے اور "
        "پھر دادی ہمیں پرانے زمانے کی باتیں بتانے لگتی تھیں۔",
        "Die kleine Bäckerei an der Ecke öffnet schon um fünf Uhr, und der Duft von frischem Brot zieht durch die ganze Straße. Wer "
        "früh zur Arbeit muss, trinkt dort im Stehen einen Kaffee und liest schnell die Zeitung von gestern.",
        "Balıkçılar sabaha karşı denizden döndüklerinde limanda kediler onları bekler. Kasalar indirilir, ağlar temizlenir ve güneş "
        "doğarken pazarın ilk müşterileri gelmeye başlar; herkes en taze balığı almak için acele eder ve pazarlık yapar.",
    ],
    "books_ar": [
        "پیرمرد کنار رودخانه نشسته بود و به آب نگاه می‌کرد. سال‌ها پیش پسرش از همین راه رفته بود و او هنوز هر غروب به اینجا می‌آمد تا "
        "شاید قایق کوچک او را از دور ببیند و با او به خانه برگردد.",
    ],
    "wiki_ar": [
        "یہ مضمون ایک چھوٹے شہر کے بارے میں ہے جو دریا کے کنارے آباد ہے۔ اس کی گلیاں تنگ ہیں لیکن بازار بہت بڑا ہے، اور لوگ دور دور "
        "سے کپڑا اور مسالے خریدنے کے لیے یہاں آتے ہیں۔",
    ],
    "science_en": [
        "L'eau bout lorsque sa vapeur pousse aussi fort que l'air qui l'entoure. En montagne, où l'air est plus léger, elle bout donc "
        "plus tôt, et il faut attendre plus longtemps pour que les pâtes et les légumes soient cuits.",
    ],
}

# Half Arabic, half English: neither language is clear to the identifier.
MIXED: dict[str, list[str]] = {
    "web_en": [
        "Today we went to the market early in the morning ثم عدنا إلى البيت قبل الظهر and then we cooked lunch together in the small "
        "kitchen وجلسنا في الحديقة مع الجيران until the sun went down وكان الجو جميلًا جدًا and everyone was happy to be there with the "
        "children.",
        "The meeting starts at nine o'clock tomorrow morning في القاعة الكبيرة من المبنى الجديد and please bring all of your papers with "
        "you لأننا سنراجع الصفحات معًا before we decide on the next step and send the last report to the office.",
        "My sister likes to read old stories قبل النوم في كل ليلة because they make her feel calm وتساعدها على نسيان تعب اليوم and she "
        "keeps the books near her bed على الطاولة الصغيرة beside the lamp and the clock.",
    ],
    "web_ar": [
        "ذهبنا إلى الشاطئ يوم الجمعة and we stayed there for the whole day وأكلنا السمك في مطعم صغير near the old harbour with our "
        "friends ثم رجعنا في الليل متعبين but very happy about everything that we had seen.",
        "هذا الهاتف الجديد جيد جدًا but the battery is empty after a few hours وهذا أمر مزعج لمن يسافر كثيرًا so I think you should wait "
        "for the next one حتى لا تندم على الشراء and lose your money for nothing.",
        "تعلمت الطبخ من جدتي في القرية and she never used a book or a scale when she cooked for the family بل كانت تقيس كل شيء بيدها and "
        "it always tasted good to everyone who came to the house وما زلت أحاول ذلك every weekend in my own small kitchen with my children.",
    ],
}

# Far fewer than 30 words, and nothing else is wrong with them.
SHORT: dict[str, list[str]] = {
    "web_en": [
        "There will be more to read here tomorrow, so please come back when you have the time.",
        "Thank you for your visit, and have a very good day with your family and your friends.",
        "This is only a short note to say that the shop is closed on Friday.",
        "The picture that was shown here has been taken away by the person who made it.",
        "There is nothing more to say about this today.",
    ],
    "web_ar": [
        "سوف ننشر بقية هذه الصفحة غدًا، فعودوا إلينا واقرؤوها.",
        "شكرًا لكم على هذه الزيارة، ونتمنى لكم يومًا سعيدًا مع الأهل والأصدقاء.",
        "هذه ملاحظة قصيرة نخبركم فيها أن المتجر مغلق يوم الجمعة.",
        "لقد حذفت الصورة التي كانت هنا بطلب من صاحبها.",
        "وليس لدينا اليوم أي شيء آخر نقوله عن هذا الموضوع.",
    ],
    "books_ar": ["وهكذا تنتهي هذه الحكاية القصيرة عن الصياد والبحر.", "وفي الصباح لم يجد أحد أثرًا للرجل الغريب في القرية."],
    "science_en": ["The rest of this lesson is in the next part of the book."],
    "news_ar": ["وسوف تنشر الصحيفة بقية الخبر في عددها القادم."],
}

# Exactly 29 words (dropped) and exactly 30 words (kept); they differ from each other in more than the last word.
EXACT_29 = {
    "web_en": "The path along the river is open again after the long repair, and people who like to walk can now reach the old mill "
    "before the sun goes down.",
    "web_ar": "فتح الطريق الذي يمر بجانب النهر من جديد بعد أعمال طويلة، ويستطيع من يحب المشي أن يصل الآن إلى الطاحونة القديمة قبل أن "
    "تغيب الشمس في آخر النهار الطويل.",
}
EXACT_30 = {
    "web_en": "Our neighbour has planted small trees in front of her house, and when they are tall enough, she wants to sit in their "
    "shade and read the newspaper every morning.",
    "web_ar": "زرعت جارتنا أشجارًا صغيرة أمام بيتها، وعندما تكبر هذه الأشجار تريد أن تجلس في ظلها كل صباح وتقرأ الصحيفة مع كوب من "
    "الشاي حتى يستيقظ بقية أفراد العائلة من نومهم.",
}

_TAGS = ("village", "school", "teacher", "church", "brother", "father", "mother", "daughter", "railway", "wife", "lawyer", "singer",
         "library", "sister", "husband", "children", "building", "weather", "winter", "friends", "health", "holiday", "business")
_LEAD = ("We were there with our friends and we would like to show you what we saw when the weather was so good that everyone was "
         "outside and nobody wanted to go home. ")

SPAM: dict[str, list[str]] = {
    "web_en": [
        "If you would like to know more about the things that we have for you and your family, then you should look here: "
        "http://shop.example/7\n" * 8,
        "We have everything that you would ever want for your home, and you should not wait.\n" * 9,
        "We have the best shoes for you, because our shoes are the shoes that everyone wants, and the shoes that we have here are the "
        "shoes you will love. Shoes, shoes, shoes for the winter, shoes, shoes, shoes for the summer, shoes, shoes and shoes for the "
        "whole family, shoes, shoes, shoes, shoes and shoes with shoes, shoes, shoes, shoes, shoes, and then shoes, shoes, shoes, "
        "shoes, shoes.",
        _LEAD + " ".join("#" + tag for tag in _TAGS),
        "You have won a prize and you only have to write to us today.\n" * 8,
    ],
    "web_ar": [
        "إذا كنت تريد أن تعرف المزيد عن الأشياء التي نقدمها لك ولعائلتك فما عليك إلا أن تنظر هنا: http://s.example/7\n" * 8,
        "هذا أفضل عرض يمكن أن تراه في حياتك فاتصل بنا الآن ولا تنتظر.\n" * 9,
        "نبيع أحذية للجميع وعندنا أحذية لكل من يحب أحذية في هذه المدينة: أحذية أحذية أحذية للرجال، أحذية أحذية أحذية للنساء، أحذية أحذية أحذية "
        "للأطفال، وكل من يبحث عن أحذية يجد هنا عندنا أحذية أحذية أحذية أحذية ثم أحذية أحذية أحذية لمن يريد.",
        "كان يومًا جميلًا لنا جميعًا #سعادة #حب #حياة #سفر #طعام #صورة #موسيقى #حفلة #صيف #بحر #عائلة #أصدقاء #طبيعة #عطلة #ابتسامة "
        "#رياضة #أزياء #فن #شتاء ونحن نريد المزيد منه #متابعة #إعجاب #مشاركة #نشر #الآن",
        "لقد ربحت جائزة كبيرة وما عليك إلا أن تكتب إلينا اليوم.\n" * 8,
    ],
}

STOP_WORDS: dict[str, list[str]] = {
    "web_en": [
        "youth sunshine hope health highway lawyer freedom wealth teacher window church weakness wife winter rainbow singer shadow work "
        "father ocean fear love railway valley village mother bedroom thunder brother beach weather courage hallway business holiday "
        "builder",
        "newspaper library driveway father bedroom school daughter lawyer business holiday hospital neighbourhood teacher winter village "
        "singer wife hallway church magazine highway railway fence husband driver birth island childhood mountain writer bridge builder "
        "brother mother",
        "and then it was that which they had been when he was there with them and she was not with him but it had been there for her as "
        "it was for them and so they were there too because we had been with them before they were here",
    ],
    "web_ar": [
        "مطبخ طاولة كرسي نافذة ستارة حديقة سياج دراجة عجلة مطرقة مفتاح خزانة درج بطانية وسادة غرفة حمام مرآة فرشاة منشفة سلة دلو مكنسة "
        "سلم مصباح جرس صندوق ممر حوض دفيئة رف كتاب",
        "جبل نهر بحر سماء شمس قمر مطر ثلج ريح صحراء غابة شجرة زهرة بستان حقل وادي جزيرة شاطئ قرية مدينة شارع بيت مدرسة جامعة مكتبة "
        "مستشفى مسجد متحف مطار محطة ميناء سوق",
        "وهو الذي كان من قبل في ذلك ثم هي التي كانت معه في هذا أو في ذلك ومن هؤلاء الذين كانوا معنا أو معهم أو معكم حيث كان هو وكانت هي "
        "ولم يكن ذلك هو هذا بل كان هذا هو ذلك",
    ],
}
