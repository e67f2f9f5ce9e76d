"""All that the five papers print of their own, against the manifests: no row without a command, none with two."""

from collections import Counter

from rankdet.figures.manifest import is_figure, load_figure
from rankdet.overview.targets import names
from rankdet.results.manifest import load_manifest

PAPERS = {"ap-loss": 91, "alrp": 65, "dr-loss": 19, "harmonic": 0, "pap": 17}  # their own rows


def test_every_own_row_of_every_table_is_in_one_manifest(repo, registry):
    """33 tables, 192 rows: trained under the paper's protocol, or worked out, where there is nothing to train."""
    own = {
        f"{table.id}#{row.key}": table.id.partition("/")[0]
        for table in registry.tables.values()
        for row in table.own_rows()
    }
    assert len({address.partition("#")[0] for address in own}) == len(registry.tables) == 33
    assert Counter(own.values()) == Counter(PAPERS)
    found = Counter()
    for paper in PAPERS:
        for name in names(repo, paper):
            path = repo / "experiments" / paper / f"{name}.yaml"
            if is_figure(path):
                tables = map(registry.table, getattr(load_figure(path).spec, "tables", ()))
                found.update(f"{table.id}#{row.key}" for table in tables for row in table.own_rows())
                continue
            manifest = load_manifest(path, registry)
            if not manifest.of_paper:
                continue
            keys = {row.key: f"{table.id}#{row.key}" for table, row in manifest.printed() if not row.quoted}
            assert keys.keys() == manifest.rows.keys()
            assert [key for key, row in manifest.rows.items() if not row.paper] == []
            found.update(keys.values())
    assert found == dict.fromkeys(own, 1)
    assert found.total() == 192
