# async fn consume(mut receiver: tokio::sync::mpsc::Receiver<u64>) {
while let Some(item) = receiver.recv().await {
    println!("{item}");
}
# }
