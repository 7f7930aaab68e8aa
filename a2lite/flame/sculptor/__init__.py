"""The head by code alone, for ``a2lite.flame.build``: nobody else needs it.

surface (signed distance) -> rings (eyes, mouth, ears, nostrils) -> topology (the mesh between them) -> anatomy
(eyeballs, names, jaw weights) -> rig (action units, lids, jaw), identity, colours. Nothing derives from FLAME's data.
"""
