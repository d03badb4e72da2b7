"""A small tokenizer, its extension by Arabic pieces, and a few real documents in both languages."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as model_pb2

from allam.chat.tokens import CHAT_SPECIALS
from allam.documents import Document, shard_path, write_documents

ENGLISH = [
    "Paris is the capital of France, and the Seine runs through it.", "Water boils at one hundred degrees at sea level.",
    "The symbol of iron is Fe, after its Latin name.", "A week has seven days and a year has twelve months.",
    "for i in range(10):\n    print(i, i * i)", "The camel carries its water in its blood, not in its hump.",
]
ARABIC = [
    "باريس عاصمة فرنسا، ويمر بها نهر السين.", "يغلي الماء عند مئة درجة مئوية عند سطح البحر.", "رمز الحديد في الكيمياء مأخوذ من اسمه اللاتيني.",
    "في الأسبوع سبعة أيام وفي السنة اثنا عشر شهرا.", "القاهرة عاصمة مصر وأكبر مدنها.", "يعيش الجمل في الصحراء ويصبر على العطش.",
]


@pytest.fixture(scope="session")
def base_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SentencePiece BPE with byte fallback, trained on the English lines."""
    folder = tmp_path_factory.mktemp("base_tokenizer")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(ENGLISH * 3), model_prefix=str(folder / "tokenizer"), model_type="bpe", vocab_size=340, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2, num_threads=1)
    return folder


@pytest.fixture(scope="session")
def merged_tokenizer(tmp_path_factory: pytest.TempPathFactory, base_tokenizer: Path) -> Path:
    """The base with Arabic pieces, the specials and padding rows after its own."""
    proto = model_pb2.ModelProto()
    proto.ParseFromString((base_tokenizer / "tokenizer.model").read_bytes())
    kinds = model_pb2.ModelProto.SentencePiece
    lowest = min(p.score for p in proto.pieces)
    new = [("▁ال", kinds.NORMAL), ("عاصمة", kinds.NORMAL), ("▁الماء", kinds.NORMAL), ("ية", kinds.NORMAL), *((s, kinds.CONTROL) for s in CHAT_SPECIALS),
           ("<|padding_0|>", kinds.CONTROL), ("<|padding_1|>", kinds.CONTROL)]
    for i, (piece, kind) in enumerate(new):
        proto.pieces.add(piece=piece, score=lowest - 1 - i if kind == kinds.NORMAL else 0.0, type=kind)
    folder = tmp_path_factory.mktemp("merged_tokenizer")
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    return folder


def documents_of(texts: list[str], source: str, language: str, domain: str, kind: str = "natural", copies: int = 20) -> list[Document]:
    """`copies` numbered variations of each text; translations name an English original of the same number."""
    return [Document(id=f"{source}-{i}", text=f"{text} {i}", source=source, language=language, domain=domain, kind=kind,  # type: ignore[arg-type]
                     translation_of=f"web_en-{i}" if kind == "translated" else None, licence="MIT" if domain == "math" else None)
            for i, text in enumerate(texts * copies)]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of the stages dedup (`natural`) and translate (`translated`)."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("natural", "translated")}
    natural, translated = folders["natural"] / "documents", folders["translated"] / "documents"
    web = documents_of(ENGLISH, "web_en", "en", "web")
    write_documents(shard_path(natural, "web_en", 0), web[:70])
    write_documents(shard_path(natural, "web_en", 1), web[70:])
    write_documents(shard_path(natural, "math_en", 0), documents_of(ENGLISH[1:3], "math_en", "en", "math"))
    write_documents(shard_path(natural, "web_ar", 0), documents_of(ARABIC, "web_ar", "ar", "web"))
    write_documents(shard_path(natural, "empty_ar", 0), [])
    write_documents(shard_path(translated, "translated_web_ar", 0), documents_of(ARABIC, "translated_web_ar", "ar", "web", "translated"))
    return folders
