//! Lossless editing of env files.
