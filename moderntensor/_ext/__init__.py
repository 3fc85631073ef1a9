"""Where the compiled engines are installed; their sources lie in `ext/`, their stubs here."""
