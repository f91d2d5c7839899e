# use std::sync::LazyLock;
# static WORDS: LazyLock<Vec<String>> = LazyLock::new(Vec::new);
# async fn start() -> Result<(), tokio::task::JoinError> {
// Before the first request is accepted.
tokio::task::spawn_blocking(|| LazyLock::force(&WORDS)).await?;
# Ok(())
# }
