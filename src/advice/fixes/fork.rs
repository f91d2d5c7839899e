# async fn convert() -> Result<(), Box<dyn std::error::Error>> {
// Without `pre_exec` and the like; and away from the loop, for all else that it takes.
let child = tokio::task::spawn_blocking(|| {
    std::process::Command::new("convert").arg("in.png").spawn()
})
.await??;
# let _ = child;
# Ok(())
# }
