// An identity provider on loopback: node provider.mjs jwt|opaque AUDIENCE. Prints its issuer when it listens.
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const [format, audience] = process.argv.slice(2);
const device = 'urn:ietf:params:oauth:grant-type:device_code';

const configuration = {
  clients: [
    {
      client_id: 'openeo-public',
      token_endpoint_auth_method: 'none',
      grant_types: [device, 'refresh_token', 'authorization_code'],
      response_types: ['code'],
      redirect_uris: ['http://localhost/callback'],
      application_type: 'native',
    },
    {
      client_id: 'robot',
      client_secret: 'machine secret',
      token_endpoint_auth_method: 'client_secret_basic',
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
    },
    {
      client_id: 'machine',
      client_secret: 'machine secret',
      token_endpoint_auth_method: 'client_secret_post',
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
    },
  ],
  claims: { openid: ['sub'], profile: ['name'] },
  findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub, name: `${sub} of Node` }) }),
  issueRefreshToken: async () => true,
  features: {
    deviceFlow: { enabled: true },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: async () => true },
    resourceIndicators: {
      enabled: format === 'jwt',
      defaultResource: async () => audience,
      useGrantedResource: async () => true,
      getResourceServerInfo: async () => ({ scope: 'openid profile', audience, accessTokenFormat: 'jwt' }),
    },
  },
};

const server = createServer((request, response) => answer(request, response));
let answer;
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  answer = new Provider(issuer, configuration).callback();
  console.log(issuer);
});
