# fn parse(body: Vec<u8>) -> usize { body.len() }
# async fn upload(body: Vec<u8>) -> Result<usize, tokio::task::JoinError> {
// The handler takes `Bytes`; with `serde_json`: `serde_json::from_slice(&body)`.
let rows = tokio::task::spawn_blocking(move || parse(body)).await?;
# Ok(rows)
# }
