// The routes' table.

export const routes = [];
export const on = (method, pattern, handler) => {
  const names = [];
  const regex = new RegExp(
    `^${pattern.replace(/\{(\w+)\}/g, (_, name) => {
      names.push(name);
      return "([^/]+)";
    })}$`,
  );
  routes.push({ method, regex, names, handler });
};
