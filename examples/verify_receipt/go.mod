module openagents.dev/examples/verify_receipt

go 1.21
