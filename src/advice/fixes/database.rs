# struct Connection;
# impl Connection { fn insert(&mut self, _row: &str) -> Result<u64, std::io::Error> { Ok(1) } }
# type Job = Box<dyn FnOnce(&mut Connection) + Send>;
# async fn handler(jobs: std::sync::mpsc::Sender<Job>) -> Result<(), Box<dyn std::error::Error>> {
// One thread owns the connection: `for job in queue { job(&mut connection) }`.
let (reply, answer) = tokio::sync::oneshot::channel();
jobs.send(Box::new(move |connection| {
    let _ = reply.send(connection.insert("row"));
}))?;
let id = answer.await??;
# let _ = id;
# Ok(())
# }
