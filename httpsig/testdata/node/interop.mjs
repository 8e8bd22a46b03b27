// Signs and verifies requests with http-message-signatures, over real HTTP, for external_test.go.
//
//   node interop.mjs serve PUBLIC.pem      verifies every request; says {"port":N} first; ends when its input ends
//   node interop.mjs send URL PRIVATE.pem  signs and sends its own requests; says {"name":…,"status":N} for each

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import signatures from 'http-message-signatures';

const { createSigner, createVerifier, httpbis } = signatures;
const keyId = 'key-1';
const alg = 'ecdsa-p384-sha384';

function contentDigest(algorithm, body) {
    return `${algorithm}=:${createHash(algorithm.replace('-', '')).update(body).digest('base64')}:`;
}

async function verify(request, body, verifier) {
    const headers = request.headersDistinct;
    if (body.length > 0) {
        const [field] = headers['content-digest'] ?? [];
        const [algorithm] = (field ?? '').split('=');
        if (!['sha-256', 'sha-512'].includes(algorithm) || field !== contentDigest(algorithm, body)) {
            throw new Error('digest does not match');
        }
    }
    const verified = await httpbis.verifyMessage({
        keyLookup: async ({ keyid }) => (keyid === keyId ? { id: keyId, algs: [alg], verify: verifier } : null),
        requiredFields: ['@method', '@target-uri', 'authorization'],
        requiredParams: ['created', 'keyid', 'alg'],
        maxAge: 60,
        tolerance: 5,
    }, { method: request.method, url: `http://${request.headers.host}${request.url}`, headers });
    if (verified !== true) {
        throw new Error('signature does not verify');
    }
}

function serve(publicKey) {
    const verifier = createVerifier(readFileSync(publicKey), alg);
    const server = http.createServer(async (request, response) => {
        const parts = [];
        for await (const part of request) {
            parts.push(part);
        }
        try {
            await verify(request, Buffer.concat(parts), verifier);
            response.writeHead(200).end('verified');
        } catch (error) {
            response.writeHead(401).end(String(error.message));
        }
    });
    server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })));
    process.stdin.on('end', () => process.exit(0)).resume();
}

// Each request is signed, then given to tamper, then sent.
const requests = [
    { name: 'minimal', fields: ['@method', '@target-uri', 'authorization'] },
    {
        name: 'every component',
        fields: ['@method', '@target-uri', '@authority', '@scheme', '@path', '@query', '@request-target', 'authorization',
            'x-list', 'x-empty'],
        params: ['keyid', 'alg', 'created', 'expires', 'nonce', 'tag'],
        paramValues: { nonce: 'n "1" \\', tag: 'interop' },
        path: '/v1/customers/a%2Fb?x=%20&y=z',
        headers: { 'X-List': ['a', 'b,  c'], 'X-Empty': '' },
    },
    { name: 'no query', fields: ['@method', '@target-uri', 'authorization', '@query'], path: '/' },
    ...['sha-256', 'sha-512'].map((algorithm) => ({
        name: algorithm,
        method: 'POST',
        fields: ['@method', '@target-uri', 'authorization', 'content-type', 'content-digest', 'idempotency-key'],
        body: '{"hello": "world"}',
        headers: {
            'Content-Type': 'application/json',
            'Content-Digest': contentDigest(algorithm, '{"hello": "world"}'),
            'Idempotency-Key': '27c9aa3b',
        },
    })),
    {
        name: 'tampered: method', fields: ['@method', '@target-uri', 'authorization'],
        tamper: (message) => ({ ...message, method: 'DELETE' }),
    },
    {
        name: 'tampered: field', fields: ['@method', '@target-uri', 'authorization'],
        tamper: (message) => ({ ...message, headers: { ...message.headers, Authorization: 'Bearer other' } }),
    },
    {
        name: 'tampered: body', method: 'POST',
        fields: ['@method', '@target-uri', 'authorization', 'content-digest'],
        body: 'abd', headers: { 'Content-Digest': contentDigest('sha-256', 'abc') },
    },
    { name: 'tampered: not covered', fields: ['@method', 'authorization'] },
    {
        name: 'tampered: too old', fields: ['@method', '@target-uri', 'authorization'],
        paramValues: { created: new Date(Date.now() - 120_000) },
    },
];

function exchange(url, method, headers, body) {
    return new Promise((resolve, reject) => {
        const request = http.request(url, { method, headers }, (response) => {
            response.resume().on('end', () => resolve(response.statusCode));
        });
        request.on('error', reject).end(body);
    });
}

async function send(base, privateKey) {
    const key = createSigner(readFileSync(privateKey), alg, keyId);
    for (const { name, method = 'GET', path = '/v1/customers?a=b', headers, body, fields, params, paramValues, tamper }
        of requests) {
        const url = new URL(path, base);
        const signed = await httpbis.signMessage({ key, name: 'sig1', fields, params, paramValues }, {
            method, url, headers: { Authorization: 'Bearer secret', ...headers },
        });
        const message = tamper ? tamper(signed) : signed;
        console.log(JSON.stringify({ name, status: await exchange(url, message.method, message.headers, body) }));
    }
}

const [mode, ...args] = process.argv.slice(2);
if (mode === 'serve') {
    serve(...args);
} else {
    await send(...args);
}
