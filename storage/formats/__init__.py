"""One module per image file format: header checks, decoding at full depth, and rewriting with all metadata kept."""
