"""Values that every other package uses: geometry, names, fusion, scoring."""
