# use std::sync::Arc;
# use tokio::sync::Semaphore;
# fn decode(bytes: Vec<u8>) -> usize { bytes.len() }
# async fn thumbnail(cores: Arc<Semaphore>, bytes: Vec<u8>) -> Result<usize, Box<dyn std::error::Error>> {
// As many at once as there are cores, made once: `Semaphore::new(cores)`.
let permit = cores.acquire_owned().await?;
let size = tokio::task::spawn_blocking(move || {
    let _permit = permit;
    decode(bytes)
})
.await?;
# Ok(size)
# }
