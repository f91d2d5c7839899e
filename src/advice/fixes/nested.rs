# async fn inner() -> u64 { 1 }
# async fn outer() -> u64 {
// Not `block_on(inner())`, which holds the thread that `inner` may need.
inner().await
# }
