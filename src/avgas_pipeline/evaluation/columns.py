"""What the tables of a report have in their columns."""

from dataclasses import dataclass

from ..metrics.sound import SISDRImprovement


@dataclass(frozen=True)
class Column:
    """
    One metric in a table.

    Attributes:
        key (`str`): Its name in `report.json`.
        title (`str`): In tables.
        scale (`float`): Tables show the value times this: 100 for shares.
        statistic (`str`): `"mean"` or `"median"` over soundscapes.
        unit (`str`): What is resampled for the interval.
        digits (`int`): After the decimal point.
    """

    key: str
    title: str
    scale: float = 100.0
    statistic: str = "mean"
    unit: str = "soundscape"
    digits: int = 1


SEPARATED_COLUMNS = [
    Column("sep_recall", "Sep-R@1"),
    Column("sep_all", "Sep-all"),
    Column("leakage", "leakage"),
    Column("duplicates", "duplicates"),
    Column("own_label", "own label"),
]
SOUND_COLUMNS = [
    Column("label_recall", "label recall"),
    Column("label_recall_by_group", "label recall", unit="source group"),
    Column("label_any", "any label"),
    Column("label_all", "all labels"),
    Column("label_precision", "label precision"),
    Column("first_label", "first label"),
    Column("false_labels", "false labels", 1.0, digits=2),
    Column("confident_false_labels", "of 0.8 and more", 1.0, digits=2),
    Column("count_accuracy", "count right"),
    # Of the tables by number of sources: it is of all slots together, and has no interval.
    Column("presence_ap", "presence AP"),
    Column("si_sdri_db", f"SI-SDRi, {SISDRImprovement.statistic} dB", 1.0, SISDRImprovement.statistic),
]


def table_columns(top_k: int | None) -> dict[str, list[Column]]:
    """The metrics of every task's table; `None` is a K that is each soundscape's own number of labels, n."""
    highest = "n" if top_k is None else top_k
    mixed = [
        Column("crs", "CRS"),
        Column("recall_strict", f"R@{highest}*"),
        Column("recall_mean", f"R@{highest}-mean"),
        Column("recall_any", f"R@{highest}-any"),
        Column("label_accuracy", "AIC"),
        Column("crs_cov", "CRS-cov"),
        Column("crs_sim", "CRS-sim"),
        Column("iis_cosine", "IIS"),
        Column("iis_win_rate", "IIS-win"),
    ]
    return {"sound": SOUND_COLUMNS, "mixed": mixed, "separated": SEPARATED_COLUMNS}
