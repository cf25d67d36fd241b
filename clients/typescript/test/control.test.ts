import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { test } from "node:test";

import { BUILD_ID, controlTokens } from "../src/control.js";
import { Refusal } from "../src/refusal.js";

const [T, U] = ["run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events", "user:usr_01J9ZQ6T5W3M8K2N4P7R1S0V6X:runs"];

interface Asked {
  readonly url: string;
  readonly init: RequestInit;
}

function control(answer: () => Response, asked: Asked[] = []) {
  const fetch = async (url: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    asked.push({ url: String(url), init });
    return answer();
  };
  return controlTokens({ url: "http://control/", accessToken: async () => "access", fetch });
}

function refused(reason: string, retryAfterMs = 0): (error: unknown) => boolean {
  return (error) => error instanceof Refusal && error.reason === reason && error.retryAfterMs === retryAfterMs;
}

test("a sync token is asked for as the edge wants it, and says what it grants", async () => {
  const asked: Asked[] = [];
  const body = {
    token: "sync",
    expireTime: new Date(Date.now() + 300_000).toISOString(),
    grants: [
      { topic: T, granted: true },
      { topic: U, reason: "REASON_OWNER_MISMATCH" },
    ],
    khalaUrl: "ws://khala",
    fromTheFuture: true,
  };
  const { expiresInMs, ...grant } = await control(() => Response.json(body), asked)([T, U]);
  assert.deepEqual(grant, { token: "sync", topics: [T], refused: { [U]: "owner_mismatch" }, khalaUrl: "ws://khala" });
  assert(expiresInMs > 200_000 && expiresInMs <= 300_000);
  assert.equal(asked[0]?.url, "http://control/openagents.control.v1.SyncTokenService/MintSyncToken");
  assert.equal(new Headers(asked[0].init.headers).get("authorization"), "Bearer access");
  assert.equal(new Headers(asked[0].init.headers).get("x-oa-client-build"), BUILD_ID);
  assert.deepEqual(JSON.parse(String(asked[0].init.body)), { topics: [T, U], surface: "web" });
});

test("a refusal of control has its reason", async () => {
  // google.rpc.ErrorInfo{reason: "reauth_required", domain: "openagents"}
  const value = Buffer.from("\n\x0freauth_required\x12\nopenagents", "latin1").toString("base64").replace(/=*$/, "");
  const details = [
    { type: "google.rpc.BadRequest", value: "" },
    { type: "google.rpc.ErrorInfo", value },
  ];
  const body = { code: "unauthenticated", message: "sign in", details };
  await assert.rejects(control(() => Response.json(body, { status: 401 }))([T]), refused("reauth_required"));
});

test("a refusal of control names the field", async () => {
  // google.rpc.ErrorInfo{reason: "invalid_topic", domain: "openagents", metadata: {"field": "topics"}}
  const value = "Cg1pbnZhbGlkX3RvcGljEgpvcGVuYWdlbnRzGg8KBWZpZWxkEgZ0b3BpY3M";
  const body = { code: "invalid_argument", details: [{ type: "google.rpc.ErrorInfo", value }] };
  const named = { reason: "invalid_topic", field: "topics" };
  await assert.rejects(control(() => Response.json(body, { status: 400 }))([T]), named);
});

test("a site that serves newer clients only says which, and that trying again can't help", async () => {
  // google.rpc.ErrorInfo{reason: "unsupported_client_build"}
  const value = Buffer.from("\n\x18unsupported_client_build", "latin1").toString("base64");
  const details = [{ type: "google.rpc.ErrorInfo", value }];
  const body = { code: "failed_precondition", message: "the site serves 0.2.0 to 0.3.0", details };
  await assert.rejects(control(() => Response.json(body, { status: 426 }))([T]), (error) => {
    assert(error instanceof Refusal);
    assert.deepEqual([error.reason, error.action], ["unsupported_client_build", "upgrade"]);
    return error.message.includes("0.2.0 to 0.3.0");
  });
});

test("what answers instead of control is told by its status", async () => {
  const busy = () => new Response("<html>", { status: 503, headers: { "retry-after": "3" } });
  await assert.rejects(control(busy)([T]), refused("unavailable", 3_000));
  await assert.rejects(control(() => new Response("teapot", { status: 418 }))([T]), refused("internal"));
  await assert.rejects(control(() => new Response("hello"))([T]), refused("internal"));
  // A proxy that lets nobody in says nothing about the token.
  for (const status of [401, 403]) {
    await assert.rejects(control(() => new Response("<html>", { status }))([T]), refused("unavailable"));
    const bare = { code: "unauthenticated", message: "no" };
    await assert.rejects(control(() => Response.json(bare, { status }))([T]), refused("unavailable"));
  }
  // A proxy that is starting has no route yet.
  await assert.rejects(control(() => new Response("404 page not found", { status: 404 }))([T]), refused("unavailable"));
  const portal = { status: 511, headers: { "retry-after": "9".repeat(12) } };
  await assert.rejects(control(() => new Response("<html>", portal))([T]), refused("unavailable"));
  const page = { message: "no Route matched with those values ".repeat(1000) };
  await assert.rejects(control(() => Response.json(page, { status: 503 }))([T]), {
    message: /^.*bare HTTP 503.{0,50}$/,
  });
  const away = () => {
    throw new TypeError("fetch failed");
  };
  await assert.rejects(control(away)([T]), refused("unavailable"));
});

test("why control can't be reached is said where the environment knows", async () => {
  const gone = createServer().listen(0, "127.0.0.1");
  await once(gone, "listening");
  const { port } = gone.address() as AddressInfo;
  await new Promise((resolve) => gone.close(resolve));
  const tokens = controlTokens({ url: `http://127.0.0.1:${port}`, accessToken: "access" });
  await assert.rejects(tokens([T]), { reason: "unavailable", message: /ECONNREFUSED/ });
});

test("an environment whose URLs have no parts is served, too", () => {
  const protocol = Object.getOwnPropertyDescriptor(URL.prototype, "protocol")!;
  Object.defineProperty(URL.prototype, "protocol", { ...protocol, get: () => assert.fail("not implemented") });
  try {
    controlTokens({ url: "https://control", accessToken: "access" });
  } finally {
    Object.defineProperty(URL.prototype, "protocol", protocol);
  }
});

test("an environment without AbortSignal.timeout is served, too", async (context) => {
  const timeout = Object.getOwnPropertyDescriptor(AbortSignal, "timeout")!;
  Object.defineProperty(AbortSignal, "timeout", { ...timeout, value: undefined });
  context.after(() => Object.defineProperty(AbortSignal, "timeout", timeout));
  const good = { token: "sync", khalaUrl: "ws://khala" };
  assert.equal((await control(() => Response.json(good))([T])).token, "sync");
});

test("a token lives as long as control's clock says, whatever ours shows", async () => {
  const nowMs = Date.parse("2001-01-01T00:00:00Z");
  const body = { token: "sync", expireTime: new Date(nowMs + 300_000).toISOString(), khalaUrl: "ws://khala" };
  const answer = () => Response.json(body, { headers: { date: new Date(nowMs).toUTCString() } });
  assert.equal((await control(answer)([T])).expiresInMs, 298_000, "a Date is up to 2 s old");
});

test("an address that is none is refused at once, and an access token that is none when it is used", async () => {
  for (const url of ["localhost:8080", "openagents.example", "ws://control", ""]) {
    assert.throws(() => controlTokens({ url, accessToken: "access" }), refused("invalid_setting"));
  }
  const tokens = controlTokens({ url: "http://control", accessToken: "line\nbreak", fetch: assert.fail });
  await assert.rejects(tokens([T]), refused("invalid_setting"));
});

test("an access token that has expired is renewed once", async () => {
  // google.rpc.ErrorInfo{reason: "token_expired"}
  const value = Buffer.from("\n\x0dtoken_expired", "latin1").toString("base64");
  const body = { code: "unauthenticated", details: [{ type: "google.rpc.ErrorInfo", value }] };
  const good = { token: "sync", khalaUrl: "ws://khala" };
  const bearers: (string | null)[] = [];
  const fetch = async (_: unknown, init: RequestInit = {}): Promise<Response> => {
    bearers.push(new Headers(init.headers).get("authorization"));
    return bearers.at(-1) === "Bearer new" ? Response.json(good) : Response.json(body, { status: 401 });
  };
  const source = (accessToken: string | ((rejected?: string) => string)) =>
    controlTokens({ url: "http://control", accessToken, fetch });
  assert.equal((await source((rejected) => (rejected === "old" ? "new" : "old"))([T])).token, "sync");
  assert.deepEqual(bearers.splice(0), ["Bearer old", "Bearer new"]);
  await assert.rejects(source((rejected) => `${rejected ?? ""}.`)([T]), refused("token_expired"));
  assert.deepEqual(bearers.splice(0), ["Bearer .", "Bearer .."], "once, not twice");
  for (const accessToken of ["old", () => "old"]) {
    await assert.rejects(source(accessToken)([T]), refused("token_expired"));
    assert.deepEqual(bearers.splice(0), ["Bearer old"], "there is no other token");
  }
});
