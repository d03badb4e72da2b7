"""What the data stages need to know (paper §2.1). Imports pydantic and the standard library only."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator, model_validator

from allam.items import ItemFormat
from allam.section import DomainName, FileRef, HeldOut, Name, Section, assumed, paper, planned

FilterName = Literal["language", "too_short", "spam", "stop_words"]
PAPER_FILTERS: tuple[FilterName, ...] = ("language", "too_short", "spam", "stop_words")
PersonalKind = Literal["email", "ip", "phone", "card", "iban", "national_id"]
_TRANSCRIPT = re.compile(r"\.(?:srt|vtt)(?:\.(?:gz|zst|xz|bz2))?")


class SourceConfig(Section):
    """One source of documents: where its files are, how to read them, and what they are."""

    path: str = assumed(
        "sources are files", "path, folder or glob below `data.root`, or a URL (s3, gs, az, https, hf://datasets/OWNER/NAME@COMMIT/PATH); "
        "files are read in sorted order", min_length=1)
    sha256: str | None = assumed(
        "most sources are pinned by the lock file", "SHA-256 of the one file that `path` names; another content is refused", None, pattern="^[0-9a-f]{64}$")
    language: Literal["en", "ar"] = paper("2.1", "language of the source; the language filter drops documents in any other")
    domain: DomainName = paper("2.1, Table 1", "row of Table 1 that the source counts towards")
    kind: Literal["natural", "translated"] = paper("2.1", "`translated` text is mixed and reported apart from natural text", "natural")
    format: Literal["auto", "jsonl", "parquet", "csv", "tsv", "text", "whole_text", "markdown", "warc", "mediawiki", "srt", "vtt"] = assumed(
        "most files say it by their ending", "file format; `auto` goes by the file's ending (.gz, .zst, .xz and .bz2 are unpacked); `text` makes each "
        "paragraph a document, `whole_text` each file", "auto")
    text_field: str = assumed(
        "the most common name",
        "field or column that holds the text (JSON Lines, Parquet, CSV, TSV); dots go into nested fields, as in `messages.0.content`", "text")
    id_field: str | None = assumed("the most common name",
                                   "field that holds the id; null, or absent in a record: the id is the number of the record in its file, after "
                                   "`id_prefix` or, without one, `<source>-`, and, where `path` is a folder or a pattern, `<file without its ending>-`", "id")
    url_field: str | None = assumed("the most common name", "field that holds the URL, if any; null where it is no address of the one document (a book's, "
                                    "over its chapters), since documents with the same URL are dropped", "url")
    id_prefix: str = assumed("ids of two sources may collide", "put before each id", "")
    translation_of_field: str | None = assumed(
        "translations name their source",
        "field that holds the id of the English original; null: the number of the record (after its file's name, as in an "
        "id that is made), for files of pairs without ids", "translation_of")
    translation_of_prefix: str = assumed("matches the original's id_prefix", "put before each original's id", "")
    filters: tuple[FilterName, ...] | None = paper(
        "2.1",
        "filters in the order in which they run; null: all four for web text, length for English books and transcripts, none for code and math, language and "
        "length for other prose (docs/data.md says why)", None)
    anonymise: bool | None = assumed("who published a text knows best", "replace personal data by placeholders; null: as `filter.anonymise.domains` says", None)
    licence: str | None = assumed("kept with every document to the end", "licence of the source", None)
    skip_records: int = assumed("for trials, and to make two sources of one file", "records to leave out at the start; they are not counted", 0, ge=0)
    max_documents: int | None = assumed("for trials", "read at most so many documents, after those that are skipped", None, ge=1)
    files: tuple[FileRef, ...] = planned("filled in when the recipe is planned", "the files found, with their checksums; not written by hand", ())

    @model_validator(mode="after")
    def _a_translation_is_arabic(self) -> SourceConfig:
        if self.kind == "translated" and self.language != "ar":
            raise ValueError("kind 'translated' needs language 'ar': the paper translates English into Arabic (section 2.1)")
        return self

    @property
    def filter_names(self) -> tuple[FilterName, ...]:
        """The filters of this source, its own or those of its kind of text."""
        if self.filters is not None:
            return self.filters
        if self.domain in ("code", "math"):
            return ()
        if (self.domain, self.language) == ("books", "en") or self.format in ("srt", "vtt") or (self.format == "auto" and _TRANSCRIPT.search(self.path)):
            return ("too_short",)
        return PAPER_FILTERS if self.domain == "web" else ("language", "too_short")


class IngestConfig(Section):
    """Reading raw files into the document schema."""

    sources: dict[str, SourceConfig] = planned("taken from data.sources", "natural and translated sources, by name", {})
    order: tuple[str, ...] = planned(
        "a key has no order of names, but what is kept of repeated ids depends on it", "sources in the recipe's order; filled in by the plan", ())
    shard_bytes: int = assumed("part of identity, so that the number of workers changes nothing; what one worker does at once",
                               "bytes of text after which a new shard of a file begins", 64_000_000, ge=1)
    take_down: tuple[str, ...] = planned("taken from data.take_down", "ids of documents that must go, with their translations; filled in by the plan", ())
    max_set_aside_share: float = assumed(
        "a damaged source should stop a run", "share of broken records of a source above which the stage fails", 0.05, ge=0, le=1)
    max_document_bytes: int = assumed(
        "bounds memory, of which a worker takes up to 50 bytes for each; the longest books have a few megabytes",
        "records with more bytes are set aside as oversized", 32_000_000, ge=1)


class AnonymiseConfig(Section):
    """Personal data in the documents that are kept, replaced by placeholders such as `[email]`. The paper doesn't speak of it."""

    domains: tuple[DomainName, ...] = assumed(
        "people's addresses stand on web pages, in comments and in newspapers; nine million words of books hold none, and those in code are examples",
        "domains whose sources are anonymised unless they say otherwise; an empty list turns it off", ("web", "news", "other"))
    email: bool = assumed("personal", "e-mail addresses, as `[email]`", True)
    ip: bool = assumed("personal", "IPv4 and IPv6 addresses that are reachable from everywhere, as `[ip]`", True)
    phone: bool = assumed("personal", "phone numbers, international and in the national forms of the Arab countries, as `[phone]`", True)
    card: bool = assumed("personal", "numbers of payment cards, as `[card]`", True)
    iban: bool = assumed("personal", "international bank account numbers, as `[iban]`", True)
    national_id: bool = assumed("personal", "national ids of the Gulf states, as `[id]`", True)


class FilterConfig(Section):
    """The paper's quality filters (§2.1). Thresholds of spam and stop words are ours: the paper gives none."""

    sources: dict[str, SourceConfig] = planned("taken from data.sources", "sources, by name", {})
    min_language_score: float = paper("2.1", "documents with a lower language-identification score are dropped; this score itself is kept", 0.95, ge=0, le=1)
    language_model_sha256: str = assumed("the model decides what is kept, so it is identity", "SHA-256 of the fastText model lid.176.ftz",
                                         "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83")
    min_words: int = paper("2.1", "documents with fewer words (split at white space) are dropped", 30, ge=0)
    max_spam_ratio: float = assumed(
        "the paper names no threshold; this one is calibrated on real text (docs/data.md)",
        "share of words in links, hashtags, repetitions, menus, boilerplate or over-used words above which a document is spam", 0.3, ge=0, le=1)
    min_stop_word_ratio: float = assumed("calibrated (docs/data.md)", "prose has function words: documents with a smaller share are lists", 0.05, ge=0, le=1)
    max_stop_word_ratio: float = assumed("calibrated (docs/data.md)", "documents with a larger share of stop words say nothing", 0.75, ge=0, le=1)
    anonymise: AnonymiseConfig = assumed("a corpus should not teach a model people's numbers", "personal data in what is kept", AnonymiseConfig())

    def is_anonymised(self, source: SourceConfig) -> bool:
        """Whether the source's personal data is replaced."""
        return source.domain in self.anonymise.domains if source.anonymise is None else source.anonymise


KeepRule = Literal["longest", "newest", "metadata"]
FoldName = Literal["alef", "hamza", "ya", "ta_marbuta"]  # allam.text.forms.Fold


class DedupConfig(Section):
    """Duplicate URLs and exact duplicates (§2.1); near duplicates only where the recipe asks, since fuzzy matching was found too harsh there."""

    order: tuple[str, ...] = planned(
        "a key has no order of names, but the first of equally good duplicates is kept", "sources in the recipe's order; filled in by the plan", ())
    url: bool = paper("2.1", "drop documents whose normalised URL another document has", True)
    exact: bool = paper("2.1", "drop documents whose text, in its comparison form, another document has", True)
    keep: tuple[KeepRule, ...] = assumed(
        "a page fetched several times is often cut or empty in some of them; between equal texts the recipe's order says which source is trusted more",
        "which of several duplicates is kept: that with the `longest` text (in its comparison form), the `newest` date, the most `metadata` (URL, title, "
        "date, licence); a later rule decides among the equals of an earlier one, and last the recipe's order", ("longest",))
    folds: tuple[FoldName, ...] = assumed(
        "two spellings of a letter are rarely all that differs between copies of a text",
        "letters whose variants count as one when texts are compared: `alef` (أإآٱ), `hamza` (ؤئ as ء), `ya` (ى as ي), `ta_marbuta` (ة as ه)", ())

    near_duplicates: Literal["off", "report", "drop"] = paper(
        "2.1", "documents nearly the same as a better one, by MinHash: `report` names them in near_duplicates.jsonl.zst and keeps them, `drop` drops them. The "
        "paper found this too harsh", "off")
    near_duplicate_similarity: float = assumed(
        "Lee et al. 2022 and SlimPajama", "estimated Jaccard similarity of two texts' runs of words from which they are near duplicates", 0.8, ge=0.3, le=1)
    near_duplicate_words: int = assumed("Lee et al. 2022", "words in a row that are one element of that comparison; a shorter text is one element", 5, ge=1)

    @field_validator("near_duplicates", mode="before")
    @classmethod
    def _off_is_no_truth_value(cls, value: object) -> object:
        return "off" if value is False else value  # what YAML makes of a bare `off`

    @model_validator(mode="after")
    def _no_rule_twice(self) -> DedupConfig:
        for field in ("keep", "folds"):
            if len(set(getattr(self, field))) != len(getattr(self, field)):
                raise ValueError(f"{field} names something twice: {', '.join(getattr(self, field))}")
        return self


class ItemsFile(Section):
    """Items that must not stand in the corpus."""

    path: str = assumed("benchmarks are files", "JSON Lines file (plain, .gz, .xz) below `data.root`", min_length=1)
    format: ItemFormat | Literal["questions"] = assumed(
        "public benchmarks name their fields differently", "how a line is read, as in `eval.benchmarks`; `questions`: open questions for a judge", "items")
    files: tuple[FileRef, ...] = planned("filled in when the recipe is planned", "the file with its checksum", ())


class DecontaminateConfig(Section):
    """Benchmarks in the corpus."""

    action: Literal["drop", "mark", "skip"] = assumed(
        "the paper reports benchmarks (section 4) and names no procedure", "`drop` contaminated documents, `mark` them in contamination.jsonl.zst and keep "
        "them, or don't look (`skip`)", "drop")
    ngram_words: int = assumed("GPT-3's (Brown et al. 2020, appendix C), and that of many since",
                               "words in a row that an item and a document must share; of a shorter question, all of them", 13, ge=2)
    min_words: int = assumed("GPT-3's lower bound: shorter runs collide by chance",
                             "a shorter question is taken together with its right answer; where both are shorter the item is left out and counted", 8, ge=2)
    mark_only: tuple[Name, ...] = assumed("a book of scripture holds every verse that a question quotes",
                                          "sources whose contaminated documents are marked and kept", ())
    items: dict[Name, ItemsFile] = assumed(
        "what the recipe evaluates is filled in by the plan", "further files of items: the counterpart of a benchmark in the other language, or what is "
        "evaluated elsewhere", {})
    order: tuple[str, ...] = planned("the sources are known to the plan", "sources in the recipe's order; filled in by the plan", ())

    @model_validator(mode="after")
    def _bounds_fit(self) -> DecontaminateConfig:
        if self.min_words > self.ngram_words:
            raise ValueError(f"min_words ({self.min_words}) is more than ngram_words ({self.ngram_words}); lower it")
        return self


class TranslateConfig(Section):
    """Translated text, with the link to its English source (§2.1)."""

    sources: dict[str, SourceConfig] = planned("taken from data.sources", "translated sources, by name", {})
    order: tuple[str, ...] = planned(
        "a key has no order of names, but the first of duplicates is kept", "sources in the recipe's order; filled in by the plan", ())
    drop_orphans: bool = paper("2.1", "drop translations whose English source was not kept: the paper's sources are part of its English data", True)
    min_length_ratio: float = assumed("Arabic is about as long as English in characters", "characters of the translation over those of its source", 0.3, gt=0)
    max_length_ratio: float = assumed("Arabic is about as long as English in characters", "characters of the translation over those of its source", 3.0, gt=0)
    min_language_score: float = assumed(
        "half of what the paper asks of web text: sentences and technical text score lower (docs/data.md)",
        "language-identification score for Arabic below which a translation is dropped; 0: not looked at", 0.5, ge=0, le=1)
    language_model_sha256: str = assumed("the model decides what is kept, so it is identity", "SHA-256 of the fastText model lid.176.ftz",
                                         "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83")
    max_loop_share: float = assumed(
        "a loop is the most common failure of translating models; real pairs have none (docs/data.md)",
        "share of words in a phrase said four times or more in a row, beyond the source's own, above which a translation is dropped", 0.1, ge=0, le=1)
    max_untranslated_share: float = assumed(
        "technical text keeps up to a tenth (docs/data.md)",
        "share of the source's words in small letters (names and acronyms have capitals) left in the translation above which it is dropped", 0.2, ge=0, le=1)
    max_lost_numbers_share: float = assumed(
        "of real pairs with two numbers or more none loses more than half (docs/data.md)",
        "share of the source's numbers above 12 that are missing in the translation above which it is dropped", 0.5, ge=0, le=1)
    min_numbers: int = assumed("a single year may stand in words", "sources with fewer numbers are not checked for lost ones", 2, ge=1)


class MachineTranslateConfig(Section):
    """English documents translated into Arabic by a model (§2.1). Absent from a recipe, nothing is translated here."""

    domains: tuple[DomainName, ...] = paper("2.1, Table 1", "rows of Table 1 whose English documents are translated, after deduplication", min_length=1)
    model: str | None = assumed("the paper names no model",
                                "a Marian, NLLB, M2M-100 or MADLAD model of transformers: a folder below `data.root`, or a hub's id with `revision`, "
                                "fetched before; or give `endpoint`", None, min_length=1)
    revision: str | None = assumed("a hub's model may change", "commit of the hub's repository; null where `model` is a folder", None)
    endpoint: str | None = assumed("as the judge's", "base URL of an OpenAI-compatible server that translates", None)
    endpoint_model: str | None = assumed("as the judge's", "name of the translating model on that server", None)
    source_code: str | None = assumed("families spell it differently", "the model's code for English; null: its family's (en, eng_Latn)", None)
    target_code: str | None = assumed("families spell it differently",
                                      "the model's code for Arabic; null: its family's (>>ara<<, ar, arb_Arab, <2ar>), Modern Standard Arabic", None)
    beams: int = assumed("common for these models; 1 is greedy, and faster", "beams of the search", 4, ge=1)
    precision: Literal["fp32", "bf16"] = assumed("the models were published in it", "precision of the model's weights and arithmetic", "fp32")
    max_sentence_chars: int = assumed(
        "never more than 512 tokens, Marian's limit; of the sentences in old English books 1.5% are longer",
        "longer sentences are cut, at a comma or a space", 500, ge=20)
    max_documents: int | None = assumed("translating costs", "translate at most so many documents of each source, from the first; null: all", None, ge=1)
    order: tuple[str, ...] = planned("a key has no order of names", "the sources whose documents are translated; filled in by the plan", ())
    files: tuple[FileRef, ...] = planned("filled in when the recipe is planned", "the model's files with their checksums; not written by hand", ())

    @model_validator(mode="after")
    def _one_translator(self) -> MachineTranslateConfig:
        if (self.model is None) == (self.endpoint is None):
            raise ValueError("give either model or endpoint")
        if (self.endpoint is None) != (self.endpoint_model is None):
            raise ValueError("endpoint and endpoint_model go together")
        if self.revision is not None and self.model is None:
            raise ValueError("revision is for a hub's model")
        return self


def translation_source(source: str) -> str:
    """The source that holds the translations of an English one."""
    return f"{source}_to_ar"


class DataConfig(Section):
    """From raw files to a curated corpus."""

    root: str | None = assumed(
        "where files lie is no part of identity", "folder below which all paths of the recipe lie; null: the sample that ships in the package", None)
    sources: dict[Name, SourceConfig] = paper("2.1", "the sources of text, by name; in a recipe that extends another they replace the other's", min_length=1)
    take_down: str | tuple[str, ...] = assumed(
        "right holders ask for it", "ids of documents that must go, with their translations: a list, or a file below `data.root` with one id a line. What held "
        "them is made again, the rest is reused; earlier artifacts still hold them until they are removed (`allam data trace ID` names them)", ())
    held_out: HeldOut = assumed("the paper doesn't say", "documents kept out of training and tokenizers, for bits per byte", HeldOut())
    ingest: IngestConfig = assumed("sections are stages", "reading raw files", IngestConfig())
    filter: FilterConfig = paper("2.1", "quality filters", FilterConfig())
    dedup: DedupConfig = paper("2.1", "duplicates", DedupConfig())
    decontaminate: DecontaminateConfig = assumed("the paper's sections are stages", "benchmarks in the corpus", DecontaminateConfig())
    machine_translate: MachineTranslateConfig | None = paper("2.1", "English documents to translate; null: none", None)
    translate: TranslateConfig = paper("2.1", "translated text, from its sources and from `machine_translate`", TranslateConfig())
