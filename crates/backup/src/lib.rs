//! What is saved before, encrypted and checked.
