# async fn convert() -> std::io::Result<()> {
let output = tokio::process::Command::new("convert").arg("in.png").output().await?;
# let _ = output;
# Ok(())
# }
