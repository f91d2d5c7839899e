# use std::path::PathBuf;
# async fn load(path: PathBuf) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
// All of the file's work in one trip; for a single call, `tokio::fs` does the same.
let bytes = tokio::task::spawn_blocking(move || std::fs::read(path)).await??;
# Ok(bytes)
# }
