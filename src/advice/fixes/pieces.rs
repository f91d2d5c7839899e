# fn process(_item: &u64) {}
# async fn all(items: &[u64]) {
// If it cannot leave the loop: in pieces, each far below the threshold.
for piece in items.chunks(256) {
    piece.iter().for_each(process);
    tokio::task::yield_now().await;
}
# }
