/** Sync tokens from control, by its method MintSyncToken in Connect's JSON over HTTP. */

import { create, fromJson, toJson } from "@bufbuild/protobuf";
import { base64Decode, BinaryReader } from "@bufbuild/protobuf/wire";
import { timestampMs } from "@bufbuild/protobuf/wkt";

import { reasonOf } from "./core/catalogue.js";
import {
  MintSyncTokenRequestSchema,
  MintSyncTokenResponseSchema,
} from "./gen/openagents/control/v1/sync_token_service_pb.js";
import { Refusal } from "./refusal.js";

const METHOD = "/openagents.control.v1.SyncTokenService/MintSyncToken";
const TIMEOUT_MS = 30_000;
/**
 * Maximum age of a Date in an answer: it has whole seconds, and control writes it once a second. With it, tokens seem to
 * end early rather than late.
 */
const DATE_AGE_MS = 2_000;
/** The name and version that this package reports if the program does not give its own. */
export const BUILD_ID = "khala-ts/0.1.0";
/** A longer wait that a server asks for makes no sense, and is none. */
const MAX_RETRY_AFTER_S = 999_999;
/**
 * The reasons of answers that are not control's, which say nothing about the request: a proxy says 404 while it has no
 * route yet, and 401 or 403 while it lets nobody in.
 */
const REASON_OF_STATUS: Readonly<Record<number, string>> = {
  401: "unavailable",
  403: "unavailable",
  404: "unavailable",
  408: "deadline_exceeded",
  413: "request_too_large",
  415: "unsupported_media_type",
  429: "rate_limited",
  502: "unavailable",
  503: "unavailable",
  504: "deadline_exceeded",
  511: "unavailable",
};

/**
 * A sync token, the topics and grants of owners that it grants, and the address of Khala. `refused`: what was asked for
 * and not granted, each with the reason.
 */
export interface SyncGrant {
  readonly token: string;
  readonly topics: readonly string[];
  readonly expiresInMs: number;
  readonly refused?: Readonly<Record<string, string>>;
  readonly khalaUrl: string;
}

/**
 * Gets a sync token for topics, and for grants of owners if the client has some. Rejects with Refusal when no token is
 * available; with `field` "topics" when that is because none of the topics can be granted, which ends these topics and
 * not the client.
 */
export type TokenSource = (topics: readonly string[]) => Promise<SyncGrant>;

/**
 * Return `grant`, if it can be one: a program may have made it of any answer of its server. `fixedUrl` is the address
 * that counts in place of the grant's. Throws Refusal `internal` naming the field.
 */
export function checkedGrant(grant: SyncGrant | undefined, fixedUrl: string | undefined): SyncGrant {
  const { token, topics, expiresInMs, khalaUrl = fixedUrl } = grant ?? ({} as Partial<SyncGrant>);
  if (typeof token !== "string" || token === "") throw noGrant("token", "a text");
  if (!Array.isArray(topics)) throw noGrant("topics", "an array of the topics that the token grants");
  if (typeof expiresInMs !== "number" || Number.isNaN(expiresInMs)) throw noGrant("expiresInMs", "a number");
  if (typeof khalaUrl !== "string") throw noGrant("khalaUrl", "the address of Khala");
  return { ...grant, token, topics, expiresInMs, khalaUrl };
}

function noGrant(field: string, must: string): Refusal {
  const text = `no token: ${field} must be ${must}; check what \`tokens\` resolves to`;
  return new Refusal("internal", text, { field: `tokens.${field}` });
}

/** Where a token is used: `openagents.common.v1.Surface` in the contract. */
export type Surface = "cli" | "sdk" | "web" | "desktop" | "mobile" | "worker" | "third_party";

export interface ControlOptions {
  /** Where control listens, for example "https://openagents.example". */
  readonly url: string;
  /**
   * The access token, or a function that returns the current one, because an access token lives for an hour. If control
   * says that the token has expired, the function is called once more with that token as `rejected`: it then returns
   * another one, or the same if it has no other.
   */
  readonly accessToken: string | ((rejected?: string) => string | Promise<string>);
  /** Where the tokens are used, which determines what they may open. The default is "web". */
  readonly surface?: Surface;
  /** Name and version of the program. The default is that of this package. A site may require a newer version. */
  readonly clientBuildId?: string;
  readonly fetch?: typeof globalThis.fetch;
}

/**
 * Return a source of sync tokens for the principal that the access token signs in. Throws Refusal `invalid_setting` if
 * `url` is no address of HTTP.
 */
export function controlTokens(options: ControlOptions): TokenSource {
  const { url, accessToken, surface = "web", clientBuildId = BUILD_ID } = options;
  checkAddress(url);
  const send = options.fetch ?? globalThis.fetch.bind(globalThis);
  const method = url.replace(/\/$/, "") + METHOD;
  return async (topics) => {
    const request = create(MintSyncTokenRequestSchema, { topics: [...topics], surface });
    const minted = async (bearer: string): Promise<SyncGrant> =>
      grant(await post(send, method, headersFor(bearer, clientBuildId), toJson(MintSyncTokenRequestSchema, request)));
    if (typeof accessToken === "string") return minted(accessToken);
    const bearer = await accessToken();
    try {
      return await minted(bearer);
    } catch (error) {
      if (!(error instanceof Refusal) || error.reason !== "token_expired") throw error;
      const renewed = await accessToken(bearer);
      if (renewed === bearer) throw error;
      return minted(renewed);
    }
  };
}

function checkAddress(url: string): void {
  // Not all environments can take an address apart: the URLs of React Native have no `protocol`.
  if (/^https?:\/\/[^/]/i.test(url)) return;
  const page = (globalThis as { location?: { href: string } }).location?.href;
  let protocol = "";
  try {
    // In a page, an address may be relative to it.
    protocol = new URL(url, page).protocol;
  } catch {
    // It stays empty.
  }
  if (protocol === "http:" || protocol === "https:") return;
  const text = "the address of control must begin with https:// or http://, for example https://openagents.example";
  throw new Refusal("invalid_setting", text, { field: "url" });
}

// An access token with a line break in it is no header, which `fetch` reports as it reports a server that is away.
function headersFor(bearer: string, clientBuildId: string): Headers {
  try {
    return new Headers({
      "content-type": "application/json",
      authorization: `Bearer ${bearer}`,
      "x-oa-client-build": clientBuildId,
    });
  } catch {
    const text = "the access token or clientBuildId has characters that a header can't hold; give them as they were";
    throw new Refusal("invalid_setting", text, { field: "accessToken" });
  }
}

/** `nowMs`: when control gave it, by its clock, since 1970. */
interface Answer {
  readonly json: unknown;
  readonly nowMs: number;
}

async function post(send: typeof fetch, url: string, headers: Headers, body: unknown): Promise<Answer> {
  let response: Response;
  let text: string;
  // Not all environments have `AbortSignal.timeout`.
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), TIMEOUT_MS);
  try {
    response = await send(url, {
      method: "POST",
      headers,
      body: JSON.stringify(body),
      signal: late.signal,
    });
    text = await response.text();
  } catch (error) {
    // A page does not learn whether a server is away or does not let the page in. Node says why, as the cause.
    const page = "document" in globalThis ? ", and that its OA_ALLOWED_ORIGINS has this page's origin" : "";
    const why = late.signal.aborted ? ` within ${TIMEOUT_MS} ms` : causeOf(error);
    throw new Refusal("unavailable", `control can't be reached${why}; check its address and that it is running${page}`);
  } finally {
    clearTimeout(timer);
  }
  const json = read(text);
  if (!response.ok) throw refusal(response, json);
  if (json === undefined)
    throw new Refusal("internal", "the answer is no JSON; check what answers at control's address");
  // Our clock may be wrong by more than a token's life, in which case a token would seem to live longer, or not at all.
  const dateMs = Date.parse(response.headers.get("date") ?? "");
  return { json, nowMs: dateMs ? dateMs + DATE_AGE_MS : Date.now() };
}

function causeOf(error: unknown): string {
  const { message, code } = (error as { cause?: { message?: unknown; code?: unknown } } | undefined)?.cause ?? {};
  const cause = [message, code].find((each) => typeof each === "string" && each !== "");
  return cause === undefined ? "" : ` (${String(cause)})`;
}

function grant({ json, nowMs }: Answer): SyncGrant {
  const answer = fromJson(MintSyncTokenResponseSchema, json as never, { ignoreUnknownFields: true });
  const { token, khalaUrl, grants, expireTime } = answer;
  const topics = grants.flatMap((each) => (each.granted ? [each.topic] : []));
  const refused = grants.flatMap((each) => (each.granted ? [] : [[each.topic, reasonOf(each.reason)]]));
  const expiresInMs = expireTime === undefined ? 0 : Math.max(0, timestampMs(expireTime) - nowMs);
  return { token, topics, expiresInMs, refused: Object.fromEntries(refused), khalaUrl };
}

// ------------------------------------------------------------------------------------------------------- refusals

interface ConnectError {
  readonly code?: unknown;
  readonly message?: unknown;
  readonly details?: unknown;
}

function read(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function refusal(response: Response, json: unknown): Refusal {
  const error: ConnectError = typeof json === "object" && json !== null ? json : {};
  const { reason = REASON_OF_STATUS[response.status] ?? "internal", field = "" } = infoIn(error.details);
  // Without a code, it is the JSON of something else, such as a proxy.
  const isOurs = typeof error.code === "string" && typeof error.message === "string";
  const bare = `the answer was a bare HTTP ${response.status}; check what answers at control's address`;
  const retryAfterS = Number(response.headers.get("retry-after") ?? 0);
  const retryAfterMs = retryAfterS > 0 && retryAfterS <= MAX_RETRY_AFTER_S ? retryAfterS * 1000 : 0;
  return new Refusal(reason, isOurs ? (error.message as string) : bare, { field, retryAfterMs });
}

interface ErrorInfo {
  reason?: string;
  field?: string;
}

function infoIn(details: unknown): ErrorInfo {
  for (const detail of Array.isArray(details) ? (details as unknown[]) : []) {
    const { type, value } = (detail ?? {}) as { type?: unknown; value?: unknown };
    if (type !== "google.rpc.ErrorInfo" || typeof value !== "string") continue;
    try {
      return errorInfo(base64Decode(value));
    } catch {
      continue;
    }
  }
  return {};
}

// In google.rpc.ErrorInfo, the reason is field 1, and field 3 is a map in which ours have the name of the field.
function errorInfo(bytes: Uint8Array): ErrorInfo {
  const info: ErrorInfo = {};
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    if (number === 1) info.reason = reader.string();
    else if (number === 3) Object.assign(info, mapEntry(reader.bytes()));
    else reader.skip(type, number);
  }
  return info;
}

function mapEntry(bytes: Uint8Array): ErrorInfo {
  const texts = ["", "", ""];
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) texts[reader.tag()[0]] = reader.string();
  return texts[1] === "field" ? { field: texts[2]! } : {};
}
