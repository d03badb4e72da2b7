"""ALLaM's pipeline: from raw English and Arabic text and an English-centred model to an aligned bilingual model.

`ls allam/` shows the path of the data; `allam/pipeline.py`, read from top to bottom, is the method of the paper
*ALLaM: Large Language Models for Arabic and English*. This package computes and knows nothing of Prefect.
"""

__version__ = "0.1.0"
