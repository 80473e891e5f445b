"""How toy faces are drawn: attributes, then curves on a canvas.  Used through `kao.data.toy_faces`."""
