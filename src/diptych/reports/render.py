"""Make the page. ``string.Template`` suffices: values are put in as they are and never looked into again."""

from pathlib import Path
from string import Template

from diptych.markup import date, style, text
from diptych.reports import sections
from diptych.reports.collect import Facts, collect
from diptych.reports.each import each_section
from diptych.reports.label_curve import labels_section
from diptych.reports.verdict import UNKNOWN, verdict_section
from diptych.runs import RunFolder, write_text


def write_report(run: str | Path) -> Path:
    """Rewrite ``RUN/report.html`` from what lies in the run folder; returns its path.

    Args:
        run: the folder of a run at any stage, evaluated or not.

    Raises:
        RunFolderError: it is not a run folder, is damaged, or cannot be written.
    """
    page = render(collect(run))
    path = RunFolder(run).report
    write_text(path, page)
    return path


def render(report: Facts) -> str:
    """Return the whole page: one HTML document that needs no network and runs no script."""
    bodies = [
        verdict_section(report),
        labels_section(report),
        sections.training_section(report),
        sections.warnings_section(report),
        sections.views_section(report),
        sections.neighbors_section(report),
        sections.changed_section(report),
        sections.answers_section(report),
        sections.masks_section(report),
        sections.confusion_section(report),
        each_section(report),
        sections.made_section(report),
    ]
    template = Template(Path(__file__).with_name("template.html").read_text(encoding="utf-8"))
    sentence = report.evaluations[0].result["verdict"]["sentence"] if report.evaluations else UNKNOWN
    return template.substitute(
        style=style(),
        run=text(Path(report.run).resolve().name),
        sentence=text(sentence),
        status=sections.status_line(report),
        body="\n".join(bodies),
        begun=text(date(report.card["started"])),
        version=text(report.card["diptych"]),
    )
