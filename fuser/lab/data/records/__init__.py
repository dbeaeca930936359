"""Generated records: documents, questions and answers whose names and values can be held out."""
