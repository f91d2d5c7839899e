# use std::time::Duration;
# async fn retry() {
tokio::time::sleep(Duration::from_millis(100)).await;
# }
