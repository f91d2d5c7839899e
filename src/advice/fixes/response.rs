# fn to_bytes(rows: Vec<u64>) -> Vec<u8> { rows.iter().flat_map(|row| row.to_le_bytes()).collect() }
# async fn list(rows: Vec<u64>) -> Result<Vec<u8>, tokio::task::JoinError> {
// With `serde_json`: `serde_json::to_vec(&rows)`; the type of the content is the handler's then.
let body = tokio::task::spawn_blocking(move || to_bytes(rows)).await?;
# Ok(body)
# }
