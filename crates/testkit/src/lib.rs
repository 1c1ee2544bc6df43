//! For tests only: the sandbox stack and fault injection.
