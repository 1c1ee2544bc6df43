//! Who consumes secrets: container runtimes.
