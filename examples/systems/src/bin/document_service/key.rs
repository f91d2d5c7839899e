//! The key that clients upload with.

use argon2::Argon2;
use stallscope_systems::Failure;

/// Theirs.
pub(crate) const KEY: &str = "correct horse battery staple";
/// The header it comes in.
pub(crate) const HEADER: &str = "x-key";
/// Where a hash begins.
pub(crate) const SALT: &[u8] = b"documents, 2026";

/// What is stored of a key: slow on purpose, so that it cannot be guessed.
pub(crate) type Hash = [u8; 32];

pub(crate) fn hash(key: &str) -> Result<Hash, Failure> {
    let mut hash = Hash::default();
    Argon2::default()
        .hash_password_into(key.as_bytes(), SALT, &mut hash)
        .map_err(|error| error.to_string())?;
    Ok(hash)
}
