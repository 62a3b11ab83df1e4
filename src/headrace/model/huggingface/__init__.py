"""Models in the layouts of Hugging Face's transformers, and of the released CrystalCoder."""
