# mod rayon { pub fn spawn(work: impl FnOnce() + Send + 'static) { std::thread::spawn(work); } }
# fn rank(items: Vec<u64>) -> u64 { items.iter().sum() }
# async fn ranked(items: Vec<u64>) -> Result<u64, tokio::sync::oneshot::error::RecvError> {
let (reply, answer) = tokio::sync::oneshot::channel();
rayon::spawn(move || {
    // In here, `par_iter` and `join` run on rayon's threads.
    let _ = reply.send(rank(items));
});
let sum = answer.await?;
# Ok(sum)
# }
