"""``RUN/report.html``: one self-contained page that says whether pretraining helped, and shows why to believe it."""
