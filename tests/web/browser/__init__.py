"""A package, so that the browser is closed, with its event loop, before other tests run."""
