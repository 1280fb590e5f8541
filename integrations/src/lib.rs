//! Nothing: the tests and the examples are what this package is for.
