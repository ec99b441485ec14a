"""Three small networks, really trained, and the images that `ensk demo` runs them on."""
