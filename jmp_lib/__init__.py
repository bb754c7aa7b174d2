"""A workbook of the JMP study: data, GemNet-OC network, pre-training, fine-tuning, tables and figures."""
