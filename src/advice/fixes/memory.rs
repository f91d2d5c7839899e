# fn sum(mapped: &'static [u8]) -> u64 { mapped.iter().map(|byte| u64::from(*byte)).sum() }
# async fn checksum(mapped: &'static [u8]) -> Result<u64, tokio::task::JoinError> {
// What touches mapped memory may wait for the disk at any access.
let sum = tokio::task::spawn_blocking(move || sum(mapped)).await?;
# Ok(sum)
# }
