module openagents.dev/many_clients

go 1.24
