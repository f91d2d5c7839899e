# async fn forget(cache: Vec<Vec<u8>>) {
// Nobody needs to wait for it.
tokio::task::spawn_blocking(move || drop(cache));
# }
