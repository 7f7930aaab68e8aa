"""The course as a whole: notebooks report their figures here; the runner behind ``make course`` lives beside.

``figures``: metrics.json · ``runner``: every notebook, headless · ``execute``: one notebook, in a process of
its own · ``page``: index.html · ``student``: the course without its answers · ``diagram``: drawn figures.
"""

from a2lite.course.figures import read_figures, report, run_folder

__all__ = ["read_figures", "report", "run_folder"]
