"""How toy faces are drawn, from attributes to pixels; used through `kao.data.toy_faces`."""
