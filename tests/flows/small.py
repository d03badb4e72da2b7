"""A small recipe on a few real documents."""

import json
from pathlib import Path

import yaml

from allam.recipe import locate

DOCUMENTS = {
    "web_en.jsonl": [
        "Riyadh is the capital of Saudi Arabia and its largest city. It lies in the middle of the Arabian Peninsula, on a large plateau, and is home to "
        "more than seven million people, who came there from every part of the country.",
        "Water boils at a hundred degrees when the pressure of the air is that of the sea's level. On a high mountain it boils sooner, since the air is "
        "thinner there, and this is why it takes longer to cook beans in the mountains.",
        "The camel can go without water for many days, because its body loses very little of it, and when it comes to a well it drinks more than a hundred "
        "litres in a quarter of an hour. That is more than any other animal of its size can do.",
    ],
    "web_ar.jsonl": [
        "الرياض هي عاصمة المملكة العربية السعودية وأكبر مدنها، وتقع في وسط شبه الجزيرة العربية على هضبة واسعة، ويسكنها أكثر من سبعة ملايين نسمة جاؤوا إليها من "
        "كل أنحاء البلاد طلبا للعلم والعمل، وفيها جامعات كبيرة وأسواق قديمة.",
        "يغلي الماء عند مئة درجة إذا كان ضغط الهواء كضغطه عند سطح البحر، أما في أعلى الجبل فإنه يغلي قبل ذلك لأن الهواء هناك أقل كثافة، ولهذا السبب يطول طبخ "
        "الفول في الجبال أكثر مما يطول في السهول القريبة من البحر.",
    ],
}


def write_documents(root: Path) -> None:
    """The raw files below a data root."""
    root.mkdir(parents=True, exist_ok=True)
    for name, texts in DOCUMENTS.items():
        lines = [json.dumps({"id": f"{name[:6]}-{i}", "text": text, "url": f"https://example.org/{name}/{i}"}, ensure_ascii=False)
                 for i, text in enumerate(texts)]
        (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_small_recipe(root: Path) -> Path:
    """The documents below `root`/raw and the recipe `small` that reads them; returns its file."""
    write_documents(root / "raw")
    tree = yaml.safe_load(locate("demo").read_text())
    tree["name"] = "small"
    tree["data"] |= {"root": str(root / "raw"), "sources": {
        "web_en": {"path": "web_en.jsonl", "language": "en", "domain": "web", "filters": ["too_short"]},
        "web_ar": {"path": "web_ar.jsonl", "language": "ar", "domain": "web", "filters": ["too_short"]}}}
    (root / "small.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True, sort_keys=False))
    return root / "small.yaml"
