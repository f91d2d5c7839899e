# use std::time::Duration;
# fn upload(_timeout: Duration) -> Result<(), std::io::Error> { Ok(()) }
# async fn store() -> Result<(), Box<dyn std::error::Error>> {
// Best an async client. If it must be this one: off the loop, with a timeout of
// its own, because what runs there cannot be cancelled from here.
let timeout = Duration::from_secs(10);
tokio::task::spawn_blocking(move || upload(timeout)).await??;
# Ok(())
# }
