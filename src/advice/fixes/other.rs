# fn blocks() -> u64 { 1 }
# async fn handler() -> Result<u64, tokio::task::JoinError> {
let result = tokio::task::spawn_blocking(blocks).await?;
# Ok(result)
# }
